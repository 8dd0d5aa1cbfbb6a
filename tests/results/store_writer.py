"""A process that appends numbered rows until it is given or killed; prints each finished number."""

import sys
from pathlib import Path

from result_rows import small_row

from bench.results.store import Store


def main() -> None:
    path, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with Store.open(path, note=lambda _: None) as store:
        for trial in range(first, first + count):
            store.append(small_row(trial=trial, detail='"quoted",\nand long ' * 200))
            print(trial, flush=True)


if __name__ == "__main__":
    main()
