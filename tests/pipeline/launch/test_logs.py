"""Logs from their end."""

from repro.pipeline.launch import logs
from repro.pipeline.launch.logs import tail


def test_the_last_lines(tmp_path):
    path = tmp_path / "log"
    path.write_text("\n".join(f"line {i}" for i in range(10)))
    assert tail(path, 3) == ["line 7", "line 8", "line 9"]
    assert len(tail(path, 99)) == 10


def test_only_the_end_of_a_long_log_is_read(tmp_path):
    """A file of a terabyte, most of it a hole."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.seek(1 << 40)
        file.write(b"\n" + b"x" * logs.READ + b"\nlast\n")
    assert tail(path, 99) == ["last"]  # the line before is cut


def test_one_endless_line_is_shown_as_far_as_it_is_read(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * (2 * logs.READ))
    assert tail(path, 20) == ["x" * logs.READ]


def test_what_cannot_be_read_is_a_line(tmp_path):
    path = tmp_path / "log"
    assert tail(path, 3) == ["(not there)"]
    path.write_bytes(b"good\n\xff\xfe bad byte\n")
    assert tail(path, 3) == ["good", "\ufffd\ufffd bad byte"]
    assert "cannot be read" in tail(tmp_path, 3)[0]
