"""Distil a student from a teacher; see `python scripts/train.py --help`."""

from kdlit.app.train import main

if __name__ == "__main__":
    main()
