"""`python -m supernet.reproduce table=...`: runs a table of a paper again, and says of each row whether it holds.

Can be stopped at any time, however that is; the same command does what is left.
"""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from supernet.app.build import build, space_from
from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, shows_errors
from supernet.app.options import CONF, overrides, plain
from supernet.app.published import PublishedTable, read_table
from supernet.errors import UsageError

SAID, OPTION = "table", "paper_table"

if TYPE_CHECKING:
    from supernet.commands.reproduction import Reproduction
    from supernet.report.verdicts import Tables
    from supernet.space import Space
    from supernet.sweeps.jobs import Job
    from supernet.sweeps.running import Done


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="reproduce")
@shows_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, "reproduce")
    table = chosen_rows(read_table(cfg.paper_table or "", cfg.scale, {"root": cfg.root, "lookup": cfg.lookup}), cfg.rows)
    output = Path(cfg.output or f"runs/{table.name}_{cfg.scale}")
    from supernet.sweeps.running import run_jobs
    from supernet.sweeps.table import shown_on

    with composing():
        found = reproduction(cfg, table, output)
    print(f"{table.title}, scale={cfg.scale}: {len(table.rows)} rows, in {output}\n{table.scale.about}", flush=True)
    if cfg.dry_run:
        with tempfile.TemporaryDirectory() as nowhere:
            found.output = Path(nowhere)
            print("\n".join(f"  {job.script:12}  {job.title}  {job.epochs} epochs" for job in found.first()))
        return
    with composing():
        launcher = build(cfg.launcher)
    shown = shown_on()

    def run(jobs: "Sequence[Job]") -> "Done":
        again = run_jobs(jobs, output, launcher, retry=cfg.retry, max_failures=cfg.max_failures, shown=shown)
        if cfg.retry == "none" or again.stopped:
            return again
        return run_jobs(jobs, output, launcher, max_failures=cfg.max_failures, shown=shown)  # what had not failed before

    end(cfg, found, found.run(run, shown.line), output)


def reproduction(cfg: DictConfig, table: PublishedTable, output: Path) -> "Reproduction":
    """The plan; the table of trained architectures is opened where the rows need one. Raises UsageError, TableError, RunFolderError."""
    from supernet.commands.reproduction import Reproduction

    def space(name: str) -> "Space":
        return space_from(hydra.compose("search", overrides=[f"space={name}"]).space)

    lookup = None
    if any(value.key.startswith("table/") for value in table.values):
        from supernet.tables.files import open_table

        lookup = open_table(space(table.space), cfg.lookup)
        if lookup is None:
            raise UsageError(f"table={cfg.paper_table} needs a table of trained architectures: pass lookup=FILE, or put it under "
                             "data/tables (docs/tables.md)")
    return Reproduction(table, output, space=space, lookup=lookup, seeds=cfg.searches, retrainings=cfg.retrainings,
                        options=overrides(plain(cfg)["options"] or {}))


def chosen_rows(table: PublishedTable, names: list[str] | None) -> PublishedTable:
    """The table with the rows that are asked for, by name. Raises UsageError."""
    from dataclasses import replace

    from supernet.errors import did_you_mean

    if names is None:
        return table
    known = [row.name for row in table.rows]
    for name in names:
        if name not in known:
            raise UsageError(f"rows must list some of {', '.join(map(repr, known))}, got {name!r}{did_you_mean(name, known)}")
    return replace(table, rows=[row for row in table.rows if row.name in names])


def end(cfg: DictConfig, found: "Reproduction", done: "Done | None", output: Path) -> None:
    """Writes the tables of what there is, and says what is missing. Exits with the code of the jobs."""
    from supernet.report.verdicts import summary, write_tables
    from supernet.runs.run import interpreter

    said = tables(cfg, found, done)
    try:
        output.mkdir(parents=True, exist_ok=True)
        written = write_tables(output, said)
    except OSError as error:
        raise UsageError(f"output={output}: cannot write the tables ({error.strerror or error})") from error
    print(f"\n{summary(said)}\n\nwritten   " + ", ".join(map(str, written)))
    if done is not None and done.code:
        again = shlex.join([interpreter(), "-m", "supernet.reproduce", *(renamed(word, OPTION, SAID) for word in sys.argv[1:])])
        failed = [f"  {state.job.title}: {state.error}" for state in done.of("failed")]
        lines = [f"{len(failed)} jobs failed; retry=failed runs them again:", *failed] if failed else []
        lines += [f"given up: {done.given_up}"] if done.given_up else []
        print("\n".join([*lines, f"the table is of what is finished; the same command does the rest:\n  {again}"]), file=sys.stderr)
        sys.exit(done.code)


def tables(cfg: DictConfig, found: "Reproduction", done: "Done | None") -> "Tables":
    from supernet.report.referee import lines
    from supernet.report.verdicts import Tables

    table, rows = found.table, found.rows()
    names = {row.name for row in rows}
    baselines = {row.name: row.baseline for row in table.rows if row.baseline in names and row.baseline != row.name}
    setups = {row.name: "other setup" for row in table.rows if not row.comparable}
    smaller = "other setup: smaller than what was published, so that the verdict is of the setup and says nothing of the paper."
    notes = [smaller] if setups else []
    missing = [f"{name}: {len(trials) - sum(trial.found is not None for trial in trials)} of {len(trials)}"
               for name, trials in found.trials.items() if any(trial.found is None for trial in trials)]
    if missing:
        notes.append(f"Not finished, and not counted, searches of {'; '.join(missing)}.")
    return Tables(f"{table.title} (scale={cfg.scale})", rows, table.columns,
                  lines(rows, table.columns, baselines=baselines, seed=cfg.seed, level=cfg.level), about=[table.about, table.scale.about],
                  notes=notes, baselines=baselines, level=cfg.level, setups=setups)


def renamed(word: str, old: str, new: str) -> str:
    """A word of the command line with its option under another name."""
    return f"{new}={word.partition('=')[2]}" if word.partition("=")[0] == old else word


def command() -> None:
    """The console command. Hydra takes `table=` for the group of that name, which tells where a search looks architectures up."""
    sys.argv[1:] = [renamed(word, SAID, OPTION) for word in sys.argv[1:]]
    cli(main)
