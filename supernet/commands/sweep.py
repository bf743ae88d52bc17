"""`python -m supernet.sweep FILE.yaml`, `supernet-sweep`: the jobs of a file, run so that nothing is done twice and nothing is lost.

The file is composed with `conf/sweep.yaml` and the command line by Hydra; `docs/sweeps.md` says what stands in it.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from supernet.app.checks import validate
from supernet.app.command_line import cli, composing, mendable_errors, shows_errors
from supernet.app.hydra_words import flags_and_overrides
from supernet.app.options import CONF, plain, read_options, text
from supernet.app.schema import SweepConfig
from supernet.errors import UsageError, did_you_mean
from supernet.files import write_whole

if TYPE_CHECKING:
    from supernet.sweeps.running import Done, Shown

GIVEN = "given"  # the file, among the choices of the group `sweep_file`
file_name: list[str] = []  # as the command line names it


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="sweep")
@shows_errors
def main(cfg: DictConfig) -> None:
    validate(cfg, "sweep")
    if not file_name:
        raise UsageError("expected a file: python -m supernet.sweep FILE.yaml (--help says what stands in it)")
    if cfg.script not in ("train_search", "train_final"):
        raise UsageError(f"script must be train_search or train_final, got {cfg.script}")
    if cfg.retrain is not None and cfg.script != "train_search":
        raise UsageError("retrain is of what searches find: leave it out where script=train_final")
    from supernet.app.build import build
    from supernet.sweeps.plan import planned
    from supernet.sweeps.running import run_jobs
    from supernet.sweeps.states import Watch
    from supernet.sweeps.table import headline, shown_on, table

    if cfg.name is not None and (not cfg.name.strip(". ") or "/" in cfg.name):
        raise UsageError(f"name must be a folder's name within runs, got {cfg.name!r} (output=FOLDER may lie anywhere)")
    options = plain(cfg)
    output = Path(cfg.output or f"runs/{cfg.name or Path(file_name[0]).stem}")
    with composing():
        launcher = build(cfg.launcher)
    jobs = planned(cfg.script, options["fixed"], options["axes"], options["seeds"])
    if cfg.dry_run:
        states = Watch(output).look(jobs)
        print("\n".join([f"{headline(states)}, in {output}", *table(states)]))
        return
    shown = shown_on()
    done = run_jobs(jobs, output, launcher, retry=cfg.retry, max_failures=cfg.max_failures, shown=shown,
                    begin=lambda: write_whole(output / "sweep.yaml", text(cfg).encode()))
    found = [done]
    if cfg.retrain is not None and not done.stopped:
        found += retrained(cfg, options, done, output, launcher, shown)
    end(found, output, cfg.retry)


def retrained(cfg: DictConfig, options: dict[str, Any], searched: "Done", output: Path, launcher: Any, shown: "Shown") -> "list[Done]":
    """The trainings of what the searches found. Where failed ones are run again, those of a search that has just been are not left out."""
    from supernet.sweeps.plan import retrainings, selected
    from supernet.sweeps.running import run_jobs

    kept, lines = selected(searched.states, **options["select"])
    for line in lines:
        shown.line(f"note: {line}")
    again = [state for state in kept if cfg.retry == "failed" and state.job in searched.run]
    found: list[Done] = []
    for states, retry in ((again, "none"), ([state for state in kept if state not in again], cfg.retry)):
        jobs = retrainings(states, **options["retrain"])
        if jobs and not any(done.stopped for done in found):
            found.append(run_jobs(jobs, output, launcher, retry=retry, max_failures=cfg.max_failures, shown=shown))
    return found


def end(found: "Sequence[Done]", output: Path, retry: str) -> None:
    """What became of it, and the commands that go on. Ends the process with the exit code."""
    from supernet.sweeps.running import log_of
    from supernet.sweeps.table import headline

    states = [state for done in found for state in done.states]
    print(f"\n{headline(states)}, in {output}")
    for kind, said in (("failed", "failed    "), ("elsewhere", "not here  ")):
        for state in (state for state in states if state.kind == kind):
            print(f"{said}{state.job.title}: {state.error} ({log_of(state.job, output)})")
    for done in found:
        if done.given_up:
            print(f"given up  {done.given_up}")
    if any(state.kind == "failed" for state in states):
        print(f"again     {this_command(['retry=failed'])}")
    if any(state.kind not in ("finished", "failed", "elsewhere") for state in states):
        print(f"go on     {this_command([])}")
    code = max((done.code for done in found), default=0)
    if code:
        sys.exit(code)


def this_command(more: Sequence[str]) -> str:
    """The command, as typed, with other words for `retry`."""
    from supernet.runs.run import interpreter

    kept = [word for word in typed if not word.startswith("retry=")]
    return shlex.join([interpreter(), "-m", "supernet.sweep", *file_name, *kept, *more])


typed: list[str] = []  # the command line but for the file


def take_file(arguments: Sequence[str]) -> list[str]:
    """The arguments for Hydra, once it knows what the file holds: choices from groups are words of a command line, and come before those
    that were typed. Raises UsageError: the file cannot be read."""
    flags, words = flags_and_overrides(arguments)
    name = next((word for word in words if "=" not in word and not word.startswith("~")), None)
    typed[:] = list(arguments)
    if name is None:
        return list(arguments)
    typed.remove(name)
    file_name[:] = [name]
    try:
        content = OmegaConf.to_container(read_options(Path(name)))
    except OSError as error:
        raise UsageError(f"{name}: cannot read this file as a sweep, {{axes: ..., fixed: ..., seeds: ...}} ({error.strerror})") from error
    check_content(name, content)
    chosen = content.pop("launcher", None)
    launcher = chosen.pop("name", None) if type(chosen) is dict else chosen
    if type(chosen) is dict and chosen:
        content["launcher"] = chosen
    ConfigStore.instance().store(group="sweep_file", name=GIVEN, node=OmegaConf.create(content), package="_global_")
    words.remove(name)
    chosen = launcher is None or any(word.startswith("launcher=") for word in words)
    return [*flags, f"sweep_file={GIVEN}", *([] if chosen else [f"launcher={launcher}"]), *words]


def check_content(name: str, content: dict[str, Any]) -> None:
    """Raises UsageError: the file has a key that a sweep has not, or something else than options or a list where these are expected. What
    the values may be is checked with the command line's."""
    known = [field.name for field in fields(SweepConfig) if field.name != "sweep_file"]
    for key in content:
        if key not in known:
            raise UsageError(f"{name}: there is no {key} in a sweep, there are {', '.join(known)}{did_you_mean(str(key), known)}")
    for prefix, part in (("", content), ("retrain.", content.get("retrain"))):
        if type(part) is not dict:
            continue
        for key, kind, said in (("fixed", dict, "{option: value, ...}"), ("axes", dict, "{option: [values], ...}"),
                                ("seeds", list, "a list of whole numbers")):
            if key in part and type(part[key]) is not kind and not str(part[key]).startswith("${"):
                raise UsageError(f"{name}: {prefix}{key} must be {said}, got {str(part[key])[:60]}")


def command() -> None:
    """The console command."""
    with mendable_errors():
        sys.argv[1:] = take_file(sys.argv[1:])
    cli(main)
