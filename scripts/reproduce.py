"""Run an experiment and write its table; see `python scripts/reproduce.py --help`."""

from kdlit.app.reproduce import main

if __name__ == "__main__":
    main()
