"""Search for good settings; see `python scripts/search.py --help`."""

from kdlit.app.search import main

if __name__ == "__main__":
    main()
