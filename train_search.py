"""Searches for an architecture: trains a supernet by bilevel optimisation, selects a cell, writes genotype.json and a report.

`python train_search.py --help` lists the options; the steps are in `supernet/commands/search.py`.
"""

from supernet.commands.search import command

if __name__ == "__main__":
    command()
