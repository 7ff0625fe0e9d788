"""Measure the demo's models: `python -m demo.report`."""

from demo.making.report import main

if __name__ == "__main__":
    main()
