"""On the jobs' PYTHONPATH, so that the Python of every job runs the toy stages; loads neither torch nor a data set."""

import toy_stages

toy_stages.install()
