"""Draw the row of sample scenes, demo/scenes.png: `python -m demo.sheet`."""

from demo.making.sheet import main

if __name__ == "__main__":
    main()
