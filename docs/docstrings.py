"""Make our docstrings read well as Markdown (an extension of griffe, which reads them for mkdocstrings)."""

import re

import griffe


class Readable(griffe.Extension):
    """Sections that begin with "Returns" become lists; <placeholders> and _suffixes are not taken for markup."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring is not None:
            blocks = re.split(r"\n[ ]*\n", obj.docstring.value)
            obj.docstring.value = "\n\n".join(
                block if block.startswith("    ") else readable(block) for block in blocks
            )


def readable(block: str) -> str:
    """A paragraph or section; what is indented as a whole is code, and does not come here."""
    parts = re.split(r"(`[^`]*`|^    [\w, ()]+:)", block, flags=re.MULTILINE)  # code, and names of arguments, stay
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")
    return listed("".join(parts)) if block.startswith("Returns") else "".join(parts)


def listed(section: str) -> str:
    """The lines below "Returns ...:" as a list; lines indented further go on with the item above."""
    title, *lines = section.splitlines()
    if not title.endswith(":"):
        return section
    return "\n".join([f"**{title}**", "", *(re.sub(r"^ {4}(?=\S)", "- ", line) for line in lines)])
