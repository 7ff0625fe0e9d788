"""Train the demo's models: `python -m demo.train`."""

from demo.making.train import main

if __name__ == "__main__":
    main()
