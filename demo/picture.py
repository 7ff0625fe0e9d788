"""Draw the README's picture of a run, demo/run.png: `python -m demo.picture`."""

from demo.making.picture import main

if __name__ == "__main__":
    main()
