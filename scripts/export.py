"""Write a finished run's student for use elsewhere; see `python scripts/export.py --help`."""

from kdlit.app.export import main

if __name__ == "__main__":
    main()
