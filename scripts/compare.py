"""Run every method in one setting; see `python scripts/compare.py --help`."""

from kdlit.app.compare import main

if __name__ == "__main__":
    main()
