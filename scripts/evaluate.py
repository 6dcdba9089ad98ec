"""Measure a finished run's student beside its teacher; see `python scripts/evaluate.py --help`."""

from kdlit.app.evaluate import main

if __name__ == "__main__":
    main()
