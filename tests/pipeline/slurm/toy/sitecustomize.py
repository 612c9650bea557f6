"""On the jobs' PYTHONPATH, so that the Python of every job runs the toy stages; loads neither torch nor a data set.

Python loads this before a job has begun, when nothing of ours may have been imported yet: the toys come with submitit.
"""

import sys


class WithSubmitit:
    """At the import of submitit, imports the toys."""

    def find_spec(self, name, path=None, target=None):
        if name == "submitit" and "-c" in sys.orig_argv:
            sys.meta_path.remove(self)
            import toy_stages

            toy_stages.install()


sys.meta_path.insert(0, WithSubmitit())
