"""Renaming of state-dict entries by rules."""

import os
import re
from collections.abc import Iterable, Mapping

from torch import Tensor

# (pattern, replacement) in order, their name to ours; a name that nothing matches stays as it is.
Rules = Iterable[tuple[str, str]]


def rename(state: Mapping[str, Tensor], *tables: Rules) -> dict[str, Tensor]:
    """Apply every rule of every table, in order, to all names."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in (rule for table in tables for rule in table):
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def split_in_proj(state: Mapping[str, Tensor], pattern: str) -> dict[str, Tensor]:
    """Replace each `<name>.in_proj_*` [3C, ...] whose name matches by q_proj, k_proj and v_proj."""
    result = {}
    for name, value in state.items():
        owner, _, kind = name.rpartition(".in_proj_")
        if owner and re.search(pattern, owner) and value.ndim:
            for part, chunk in zip("qkv", value.tensor_split(3), strict=True):
                result[f"{owner}.{part}_proj.{kind}"] = chunk
        else:
            result[name] = value
    return result


def origin(name: str, present: Iterable[str], *tables: Rules) -> str:
    """The name that the rules turn into `name`, in the spelling of a file with the names `present`.

    For telling people in their file's words what it lacks; `name` itself where no rule leads to it.
    """
    present = list(present)
    shapes = {_without_numbers(other) for other in present}

    def likeness(candidate: str) -> tuple:
        common = max((len(os.path.commonprefix((candidate, other))) for other in present), default=0)
        return _without_numbers(candidate) in shapes, common, _changes(candidate, tables), candidate

    return max(_origins(name, tables), key=likeness)


def _origins(name: str, tables: tuple[Rules, ...]) -> set[str]:
    """All names that the rules turn into `name`; rules are inverted where they are literals and capturing groups."""
    found = {name}
    for pattern, replacement in reversed([rule for table in tables for rule in table]):
        back, forth = re.escape(replacement), pattern.strip("^$")
        for number, group in enumerate(re.findall(r"\((?!\?)[^()]*\)", pattern), start=1):
            back = back.replace(rf"\\{number}", f"(?P<g{number}>{group[1:-1]})", 1)
            forth = forth.replace(group, rf"\g<g{number}>", 1)
        back, forth = "^" * pattern.startswith("^") + back + "$" * pattern.endswith("$"), forth.replace(r"\.", ".")
        if "(?" not in forth:
            found |= {re.sub(back, forth, candidate) for candidate in found}
    return {candidate for candidate in found if name in rename({candidate: None}, *tables)}


def _changes(name: str, tables: tuple[Rules, ...]) -> int:
    """How many rules have something to change: a name of the file's kind is further from ours than a half-way one."""
    count = 0
    for pattern, replacement in (rule for table in tables for rule in table):
        renamed = re.sub(pattern, replacement, name)
        count, name = count + (renamed != name), renamed
    return count


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "#", name)
