"""Agreement across checkpoints: size, dtype and tensors of the weights, configs, tokenizers."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from analysis360.doctor.findings import Finding, apart, common, grouped, printable, runs, shown
from analysis360.doctor.headers import Header
from analysis360.doctor.inspection import Inspected, attempt
from analysis360.hub.options import shown_size
from analysis360.places import content_of
from analysis360.series.checkpoint import VOLATILE_CONFIG
from analysis360.text import TOKENIZER

SIZE_TOLERANCE = 0.005
"""Share by which weights of one model may differ in size: headers and pickles are not all alike."""
LOOSE = ("architectures", "auto_map", "bos_token_id", "eos_token_id", "pad_token_id")
"""Keys of a config that change no weight and no score: a difference is a note."""
LOOSE_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json")
CODE = "read that code before you give --trust-remote-code"
PICKLES = "they are loaded as data alone; safetensors would be safer"
ABSENT = "no such key"
UNKNOWN = "unknown"
"""Dtype of weights whose header tells none."""


def check_weights(found: Sequence[Inspected], known: Collection[str]) -> list[Finding]:
    """Dtype and size that depart from both neighbours, and where either changes for good.

    Checkpoints in `known` have a finding already that explains their size.
    """
    order = [item.name for item in found]
    whole = [item for item in found if item.whole and item.name not in known]
    dtypes = {item.name: _dtype(item) for item in whole}
    known_dtypes = {name: dtype for name, dtype in dtypes.items() if dtype != UNKNOWN}
    findings = _changes("dtype", known_dtypes, known_dtypes, order)
    told = {name for finding in findings if finding.severity == "error" for name in finding.names}
    for dtype in dict.fromkeys(dtypes.values()):  # a size that changes with the dtype is no second finding
        sizes = {i.name: i.size for i in whole if dtypes[i.name] == dtype and i.name not in told}
        texts = {name: shown_size(size) for name, size in sizes.items()}
        findings += _changes("size", _rounded(sizes), texts, order)
    told |= {name for finding in findings if finding.severity == "error" for name in finding.names}
    return findings + _tensors([item for item in whole if item.name not in told], order)


def _dtype(item: Inspected) -> str:
    header = item.headers.get(item.shards[0].name)
    return header.dtype if isinstance(header, Header) else UNKNOWN


def _rounded(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes, those within the tolerance of one another made equal."""
    groups: list[int] = []
    made = {}
    for name, size in sizes.items():
        near = [group for group in groups if abs(size - group) <= SIZE_TOLERANCE * group]
        if not near:
            groups.append(size)
        made[name] = near[0] if near else size
    return made


def _changes(
    what: str, values: Mapping[str, str | int], texts: Mapping[str, str], order: Sequence[str]
) -> list[Finding]:
    """A run between two longer ones that agree departs; any other change of value is a note."""
    findings, kept = [], dict(values)
    runs_ = grouped(values)
    for i in range(1, len(runs_) - 1):
        names = runs_[i][1]
        (before, earlier), (after, later) = runs_[i - 1], runs_[i + 1]
        if before == after and (len(names) == 1 or len(names) < min(len(earlier), len(later))):
            expected = f"{texts[earlier[-1]]}, as in {earlier[-1]} and {later[0]}"
            advice = "upload it again as its neighbours are, unless this was meant"
            where = runs(names, order)
            findings.append(
                Finding("error", f"{what}-departs", where, expected, texts[names[0]], advice, tuple(names))
            )
            kept = {name: value for name, value in kept.items() if name not in names}
    for (_, earlier), (_, later) in zip(grouped(kept), grouped(kept)[1:], strict=False):
        found = f"{texts[earlier[-1]]} until {earlier[-1]}, {texts[later[0]]} from {later[0]} on"
        advice = "scores are computed in one stated dtype whatever is stored; nothing needs to be done"
        findings.append(
            Finding("note", f"{what}-changes", later[0], f"one {what}", found, advice, (later[0],))
        )
    return findings


def _tensors(whole: Sequence[Inspected], order: Sequence[str]) -> list[Finding]:
    """Names or shapes of tensors in the first shard that differ, among checkpoints of as many shards."""
    headers = {item.name: (len(item.shards), item.headers.get(item.shards[0].name)) for item in whole}
    read = {name: (n, header) for name, (n, header) in headers.items() if isinstance(header, Header)}
    if not read:
        return []
    usual = common(n for n, _ in read.values())
    shapes = {name: header.shapes for name, (n, header) in read.items() if n == usual}
    findings = []
    for value, names in apart(shapes).items():
        odd = sorted({name for name, _ in set(value) ^ set(common(shapes.values()))})
        found = f"{len(odd)} tensors differ in name or shape, such as {printable(odd[0])}"
        expected = "the tensors of the other checkpoints"
        findings.append(_error("tensors-differ", names, order, expected, found, "is it the same model?"))
    return findings


def check_configs(found: Sequence[Inspected]) -> list[Finding]:
    """Keys of config.json that differ, with the checkpoints that depart from the most common value."""
    order = [item.name for item in found]
    configs = {item.name: item.config for item in found if isinstance(item.config, dict)}
    keys = sorted({key for config in configs.values() for key in config} - set(VOLATILE_CONFIG))
    findings = []
    for key in keys:
        values = {
            name: shown_key(config[key]) if key in config else ABSENT for name, config in configs.items()
        }
        for value, names in apart(values).items():
            usual = common(values.values())
            expected = (
                f"{printable(key)} = {_short(usual)}, as in {sum(v == usual for v in values.values())} others"
            )
            advice = "a checkpoint of another model, or a config uploaded by mistake"
            finding = _error(
                "config-differs", names, order, expected, f"{printable(key)} = {_short(value)}", advice
            )
            findings.append(_loosened(finding) if key in LOOSE else finding)
    return findings


def shown_key(value: object) -> str:
    """A value of a config in canonical form."""
    return json.dumps(value, sort_keys=True)


def _short(text: str) -> str:
    return text if text == ABSENT else shown(json.loads(text))


def check_tokenizers(found: Sequence[Inspected]) -> list[Finding]:
    """Tokenizer files that differ, or that only some checkpoints bring."""
    order = [item.name for item in found]
    findings = []
    for file in TOKENIZER:
        having = [item for item in found if file in item.names]
        contents = _contents(having, file)
        for names in apart(contents).values():
            expected = (
                f"the {file} of {sum(v == common(contents.values()) for v in contents.values())} others"
            )
            advice = "compare the two; text would be cut into other tokens"
            finding = _error("tokenizer-differs", names, order, expected, f"another {file}", advice)
            findings.append(_loosened(finding) if file in LOOSE_TOKENIZER else finding)
        lacking = [item.name for item in found if item.names and file not in item.names]
        if having and lacking:
            few, many = (lacking, "without") if len(lacking) <= len(having) else (_names(having), "with")
            expected = f"{file} in every checkpoint or in none"
            finding = _error("tokenizer-partly", few, order, expected, f"{many} {file}", "add or remove it")
            findings.append(_loosened(finding))
    return findings


def _contents(having: Sequence[Inspected], file: str) -> dict[str, str]:
    """What names the content of a file in each checkpoint; by SHA-256 where git holds some and LFS others."""
    found = {item.name: attempt(lambda i: content_of(i.checkpoint.place, file), item) for item in having}
    if len({len(content) for content in found.values()}) > 1:
        found = {item.name: attempt(lambda i: i.checkpoint.place.sha256(file), item) for item in having}
    return found


def check_loading(found: Sequence[Inspected]) -> list[Finding]:
    """What loading the weights takes: pickles, and code of the repository's own."""
    order = [item.name for item in found]
    pickled = [item.name for item in found if item.named and item.named[0].endswith(".bin")]
    coded = [item.name for item in found if isinstance(item.config, dict) and "auto_map" in item.config]
    findings = []
    if pickled:
        findings.append(_error("pickles", pickled, order, "safetensors", "weights are pickles", PICKLES))
    if coded:
        found_ = "the model is code of the repository"
        findings.append(_error("remote-code", coded, order, "a model that transformers knows", found_, CODE))
    return [_loosened(finding) for finding in findings]


def _names(items: Sequence[Inspected]) -> list[str]:
    return [item.name for item in items]


def _error(
    kind: str, names: Sequence[str], order: Sequence[str], expected: str, found: str, advice: str
) -> Finding:
    return Finding("error", kind, runs(names, order), expected, found, advice, tuple(names))


def _loosened(finding: Finding) -> Finding:
    return Finding(**{**vars(finding), "severity": "note"})
