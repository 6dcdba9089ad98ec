"""Compare the runs of one or more sweeps; see `python scripts/report.py --help`."""

from kdlit.app.report import main

if __name__ == "__main__":
    main()
