#!/usr/bin/env python3
"""Rename the variables of an inventory to the names that whisper-xeon uses now, in place.

INVENTORY is a file or a directory, as for `ansible-playbook -i`; its group_vars and host_vars are included. Keys and
Jinja expressions get the new names; comments, order and formatting stay as they are. A second run changes nothing.
Files encrypted with ansible-vault are left alone and listed, with the names to look for.

Exit status: 0 if everything readable has the new names, 1 if something must be changed by hand, 2 if INVENTORY cannot
be read.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "plugins" / "module_utils"))

from renamed_variables import RENAMED  # noqa: E402

try:
    import yaml
except ImportError:
    sys.exit("rename_variables.py: needs PyYAML, use the Python that runs Ansible: .venv/bin/python")

YAML_SUFFIXES = (".yml", ".yaml", ".json")
# What Ansible does not read in an inventory directory.
IGNORED = re.compile(r".*(\.(bak|cfg|md|orig|pyc|pyo|retry|rpm|rst|swp|txt)|~)$|\..*")
OLD_NAME = re.compile(rf"\b(?:{'|'.join(RENAMED)})\b")
STORE_GROUP = "whisper_store"
# What playbooks/minio.yml passed to role `minio` before inventories did.
MINIO = {
    "minio_bucket": "{{ artifact_store_bucket | default('whisper-artifacts') }}",
    "minio_region": "{{ artifact_store_region | default('us-east-1') }}",
    "minio_publisher_access_key": "{{ artifact_store_access_key | default('') }}",
    "minio_publisher_secret_key": "{{ artifact_store_secret_key | default('') }}",
    "minio_reader_access_key": "{{ artifact_store_reader_access_key | default('') }}",
    "minio_reader_secret_key": "{{ artifact_store_reader_secret_key | default('') }}",
}


@dataclass
class Findings:
    """What the files of an inventory have in common."""

    names: set[str] = field(default_factory=set)  # of all variables, renamed ones by their new names
    groups: set[str] = field(default_factory=set)
    unmanaged: bool = False  # whether a file says that MinIO is not managed
    changed: dict[Path, tuple[str, list[str]]] = field(default_factory=dict)  # file: new text, what was done
    by_hand: list[str] = field(default_factory=list)
    encrypted: list[Path] = field(default_factory=list)


class Rewriter:
    """Collects the replacements in one text."""

    def __init__(self, text: str, findings: Findings):
        self.text = text
        self.findings = findings
        self.edits: dict[int, tuple[int, str]] = {}  # start: end, replacement
        self.by_hand: list[str] = []

    def result(self) -> str:
        """Return the text with all replacements."""
        parts, position = [], 0
        for start, (end, new) in sorted(self.edits.items()):
            parts += [self.text[position:start], new]
            position = end
        return "".join([*parts, self.text[position:]])

    def done(self) -> list[str]:
        """Return `old -> new` for each name that is replaced, with how often."""
        counts = Counter(self.text[start:end] for start, (end, _) in self.edits.items())
        return [
            f"{old} -> {RENAMED[old]}" + (f" ({count} times)" if count > 1 else "") for old, count in counts.items()
        ]

    def leave(self, position: int, what: str) -> None:
        """Note what must be changed by hand at a position."""
        self.by_hand.append(f"line {self.text.count(chr(10), 0, position) + 1}: {what}")

    def keys(self, found: list[tuple[str, int]]) -> None:
        """Rename the keys of one scope, given as name and position, unless the scope has the new name already."""
        taken = Counter(RENAMED.get(name, name) for name, _ in found)
        self.findings.names.update(taken)
        for name, start in found:
            if name in RENAMED:
                if taken[RENAMED[name]] > 1:
                    self.leave(start, f"{name} and another name both mean {RENAMED[name]}; keep one of them")
                else:
                    self.edits[start] = (start + len(name), RENAMED[name])

    def expressions(self, start: int, end: int, quote: str | None = None) -> None:
        """Rename in the Jinja expressions of a stretch of text; `quote` is the style of the YAML scalar that it is."""
        for block in re.finditer(r"\{\{.*?\}\}|\{%.*?%\}", self.text[start:end], re.DOTALL):
            by_name = re.search(r"\b(?:host)?vars\b", block[0]) is not None
            sets = re.match(r"\{%-?\s*set\b", block[0]) is not None
            for token in _tokens(quote).finditer(block[0]):
                name = token["name"] or token["string"]
                if name not in RENAMED:
                    continue
                before, after = block[0][: token.start()], block[0][token.end() :]
                if token["name"]:
                    attribute = before.rstrip().endswith(".")
                    of_a_host = re.search(r"\bhostvars\s*(?:\[[^\]]*\]|\.\w+)\s*\.\s*$", before)
                    argument = re.match(r"\s*=(?!=)", after) and not sets
                    wanted = not argument and (not attribute or of_a_host)
                else:
                    wanted = by_name
                if wanted:
                    position = start + block.start() + token.start("name" if token["name"] else "string")
                    self.edits[position] = (position + len(name), RENAMED[name])


def _tokens(quote: str | None) -> re.Pattern[str]:
    """Return what finds names and strings of Jinja inside a YAML scalar in quotes of a kind, or in none."""
    single, double = {"'": ("''", '"'), '"': ("'", r'\\"')}.get(quote, ("'", '"'))
    return re.compile(
        rf"(?P<quote>{single}|{double})(?:(?P<string>\w+)(?P=quote)|.*?(?P=quote))|(?P<name>\b[A-Za-z_]\w*)", re.DOTALL
    )


class YamlFile(Rewriter):
    """A YAML or JSON file: `variables` of group_vars and host_vars, or an inventory."""

    def rewrite(self, variables: bool) -> None:
        """Collect the replacements. Raises `yaml.YAMLError`."""
        root = yaml.compose(self.text, Loader=yaml.SafeLoader)
        self._seen: set[int] = set()
        if isinstance(root, yaml.MappingNode):
            (self._variables if variables else self._groups)(root)

    def _variables(self, mapping: yaml.Node) -> None:
        if not isinstance(mapping, yaml.MappingNode) or id(mapping) in self._seen:
            return
        self._seen.add(id(mapping))
        self.keys([(key.value, self._start(key)) for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)])
        for name, value in _items(mapping):
            if name in ("whisper_store_managed", "minio_managed") and isinstance(value, yaml.ScalarNode):
                self.findings.unmanaged |= value.value.lower() in ("false", "no", "off", "0")
            if RENAMED.get(name) == "artifact_build_kernels" and value.value:
                self.leave(value.start_mark.index, "kernels have other names now, kernels/kernels.txt lists them")
            self._values(value)

    def _groups(self, groups: yaml.Node) -> None:
        for group, node in _items(groups):
            self.findings.groups.add(group)
            for section, content in _items(node):
                if section == "vars":
                    self._variables(content)
                elif section == "hosts":
                    for _, host in _items(content):
                        self._variables(host)
                elif section == "children":
                    self._groups(content)

    def _values(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.ScalarNode):
            if node.tag not in ("!vault", "!unsafe"):
                self.expressions(node.start_mark.index, node.end_mark.index, node.style)
        elif id(node) not in self._seen:
            self._seen.add(id(node))
            for child in node.value:
                for part in child if isinstance(child, tuple) else (child,):
                    self._values(part)

    def _start(self, key: yaml.ScalarNode) -> int:
        return self.text.index(key.value, key.start_mark.index) if key.value in RENAMED else key.start_mark.index


def _items(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode))


class IniFile(Rewriter):
    """An inventory in INI format."""

    def rewrite(self) -> None:
        """Collect the replacements."""
        kind, position = "hosts", 0
        scope: list[tuple[str, int]] = []
        for line in self.text.splitlines(keepends=True):
            content = re.split(r"^\s*[#;]|\s#", line)[0]
            if section := re.match(r"\s*\[([^:\]]+)(?::(\w+))?\]", content):
                self.keys(scope)
                scope, kind = [], section[2] or "hosts"
                self.findings.groups.add(section[1])
            elif kind == "vars" and (variable := re.match(r"\s*(\w+)\s*=\s*(.*)", content)):
                scope.append((variable[1], position + variable.start(1)))
                self._value(variable, position)
            elif kind == "hosts":
                pairs = list(re.finditer(r"(?<=\s)(\w+)=((?:\"[^\"]*\"|'[^']*'|\{\{.*?\}\}|\S)*)", content))
                self.keys([(pair[1], position + pair.start(1)) for pair in pairs])
                for pair in pairs:
                    self._value(pair, position)
            position += len(line)
        self.keys(scope)

    def _value(self, pair: re.Match[str], position: int) -> None:
        if pair[1] in ("whisper_store_managed", "minio_managed"):
            self.findings.unmanaged |= pair[2].strip().strip("\"'").lower() in ("false", "no", "off", "0")
        self.expressions(position + pair.start(2), position + pair.end(2))


def inventory_files(inventory: Path) -> list[Path]:
    """Return the files that Ansible reads for an inventory, and the templates of them beside (`*.example`)."""
    beside = [inventory.parent / name for name in ("group_vars", "host_vars")]
    roots = [inventory] if inventory.is_dir() else [inventory, *(path for path in beside if path.is_dir())]
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file() and not any(IGNORED.match(part) for part in path.relative_to(root).parts):
                found.setdefault(path.resolve(), path)
    return list(found.values())


def examine(path: Path, findings: Findings) -> None:
    """Add to the findings what a file is and what becomes of it."""
    try:
        # Line ends stay as they are.
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        findings.by_hand.append(f"{path} is not UTF-8 text: look for old names in it")
        return
    if text.startswith("$ANSIBLE_VAULT;"):
        findings.encrypted.append(path)
        return
    variables = bool({"group_vars", "host_vars"} & set(path.parts[:-1]))
    suffix = Path(path.name.removesuffix(".example")).suffix
    is_yaml = suffix in YAML_SUFFIXES or (variables and not suffix)
    if text.startswith("#!") or suffix == ".toml" or (is_yaml and not variables and re.search(r"^plugin:", text, re.M)):
        if old := sorted(set(OLD_NAME.findall(text))):
            changes = ", ".join(f"{name} -> {RENAMED[name]}" for name in old)
            findings.by_hand.append(f"{path} is not an inventory of hosts and variables: rename {changes} in it")
        return
    if variables and not is_yaml:
        return
    if is_yaml:
        rewriter = YamlFile(text, findings)
        try:
            rewriter.rewrite(variables)
        except yaml.YAMLError as error:
            findings.by_hand.append(f"{path} is not valid YAML: {' '.join(str(error).split())}")
            return
    else:
        rewriter = IniFile(text, findings)
        rewriter.rewrite()
    findings.by_hand += [f"{path}, {line}" for line in rewriter.by_hand]
    if rewriter.edits:
        findings.changed[path] = (rewriter.result(), rewriter.done())


def _takes_lines(text: str) -> bool:
    """Tell whether a YAML file can be continued with keys of its own, each on a line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return False
    if isinstance(root, yaml.MappingNode):
        return root.start_mark.column == 0 and not root.flow_style
    return root is None or root.value == ""


def add_minio(inventory: Path, findings: Findings) -> None:
    """Give the store's group the variables that role `minio` got from a playbook before."""
    missing = {name: value for name, value in MINIO.items() if name not in findings.names}
    if STORE_GROUP not in findings.groups or findings.unmanaged or not missing:
        return
    group_vars = (inventory if inventory.is_dir() else inventory.parent) / "group_vars"
    files = [group_vars / f"{STORE_GROUP}{suffix}" for suffix in ("", *YAML_SUFFIXES)]
    path = next((file for file in files if file.exists()), group_vars / f"{STORE_GROUP}.yml")
    if path.is_dir():
        path = path / "minio.yml"
    lines = "".join(f'{name}: "{value}"\n' for name, value in missing.items())
    text, done = findings.changed.get(path, (path.read_bytes().decode("utf-8") if path.exists() else "", []))
    if path in findings.encrypted or not _takes_lines(text):
        findings.by_hand.append(f"{path} must have these lines too:\n{lines.rstrip()}")
        return
    if text and not text.endswith("\n"):
        text += "\n"
    comment = "# MinIO creates the bucket and the accounts that build.yml and deploy.yml use.\n"
    findings.changed[path] = (text + comment + lines, [*done, f"added {', '.join(missing)}"])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inventory", metavar="INVENTORY", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")
    arguments = parser.parse_args()
    findings = Findings()
    try:
        if not arguments.inventory.exists():
            raise FileNotFoundError(2, "no such file or directory", str(arguments.inventory))
        for path in inventory_files(arguments.inventory):
            examine(path, findings)
        add_minio(arguments.inventory, findings)
        for path, (text, done) in findings.changed.items():
            print(f"{path}: {'; '.join(done)}")
            if not arguments.dry_run:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text.encode("utf-8"))
    except OSError as error:
        print(f"rename_variables.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    verb = "would be changed" if arguments.dry_run else "changed"
    print(f"{len(findings.changed)} file(s) {verb}")
    secrets = [f"{old} -> {new}" for old, new in RENAMED.items() if old.startswith("whisper_") and old.endswith("_key")]
    for path in findings.encrypted:
        print(f"{path} is encrypted: run `ansible-vault edit {path}` and rename what it has of {', '.join(secrets)}")
    for line in findings.by_hand:
        print(f"by hand: {line}")
    return 1 if findings.by_hand else 0


if __name__ == "__main__":
    sys.exit(main())
