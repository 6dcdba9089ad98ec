"""Draw a digit and see what teacher and student say; see `python scripts/demo.py --help`."""

from kdlit.app.demo import main

if __name__ == "__main__":
    main()
