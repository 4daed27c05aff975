"""``python -m segearth.cli``, for where the command itself is not on the path."""

from segearth.cli import app

if __name__ == "__main__":
    app()
