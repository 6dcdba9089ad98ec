"""Compare the runs of one or more sweeps; see `python scripts/report.py --help`."""

from kdlit.report import main

if __name__ == "__main__":
    main()
