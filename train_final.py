"""Trains an architecture from scratch and tests it once, at the end.

`python train_final.py --help` lists the options; the steps are in `supernet/commands/final.py`.
"""

from supernet.commands.final import command

if __name__ == "__main__":
    command()
