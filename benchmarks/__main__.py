"""All benchmarks by one command: python -m benchmarks SUITE [options]

python -m benchmarks            what there is
python -m benchmarks layers     one of them
python -m benchmarks report     write docs/benchmarks.md again from the newest results
"""

import sys

from benchmarks.suites import run

if __name__ == "__main__":
    run(sys.argv[1:])
