#!/usr/bin/env python3
"""Rename the variables of an inventory to the names that whisper-xeon uses now, in place.

INVENTORY is a file or a directory, as for `ansible-playbook -i`; its group_vars and host_vars are included. A file of
variables, as for `-e @FILE`, will do as well. Keys and Jinja expressions get the new names; comments, order and
formatting stay as they are. A second run changes nothing. Files encrypted with ansible-vault are left alone and listed,
with the names to look for.

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

from renamed_variables import REMOVED, RENAMED  # noqa: E402

try:
    import yaml
except ImportError:
    sys.exit("rename_variables.py: needs PyYAML, use the Python that runs Ansible: .venv/bin/python")

YAML_SUFFIXES = (".yml", ".yaml", ".json")
# What Ansible does not read in an inventory directory.
IGNORED = re.compile(r".*(\.(bak|cfg|md|orig|pyc|pyo|retry|rpm|rst|swp|txt)|~)$|\..*")
OLD_NAME = re.compile(rf"\b(?:{'|'.join(RENAMED)})\b")
VARIABLE_DIRECTORIES = ("group_vars", "host_vars")
SECTIONS = {"vars", "hosts", "children"}
MERGE = "tag:yaml.org,2002:merge"
# What an expression of Jinja has in it that takes variables by names in strings, or as attributes of a host.
BY_NAME = re.compile(r"\b(?:host)?vars\b")
BRACKETS = r"\[(?:[^\[\]]|\[(?:[^\[\]]|\[[^\[\]]*\])*\])*\]"
OF_A_HOST = re.compile(rf"\bhostvars\s*(?:{BRACKETS}|\.\w+)\s*\.\s*$")
OF_ENVIRONMENT = re.compile(r"\b(?:lookup|query|q)\(\W*(?:\w+\.)*env\b[^()]*$")
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
        line = f"line {self.text.count(chr(10), 0, position) + 1}: {what}"
        # An alias leads to the same place again.
        if line not in self.by_hand:
            self.by_hand.append(line)

    def keys(self, found: list[tuple[str, int]]) -> None:
        """Rename the keys of one scope, given as name and position, unless the scope has the new name already."""
        taken = Counter(RENAMED.get(name, name) for name, _ in found)
        self.findings.names.update(taken)
        for name, start in found:
            if name in RENAMED:
                if taken[RENAMED[name]] > 1:
                    self.leave(start, f"{name} and another name both mean {RENAMED[name]}; keep one of them")
                elif not self.text.startswith(name, start):
                    self.leave(start, f"{name}, written with escapes, is now {RENAMED[name]}")
                else:
                    self.edits[start] = (start + len(name), RENAMED[name])
            elif name in REMOVED:
                self.leave(start, f"{name} is gone: {REMOVED[name]}")

    def expressions(self, start: int, end: int, quote: str | None = None) -> None:
        """Rename in the Jinja expressions of a stretch of text; `quote` is the style of the YAML scalar that it is.

        A name in there that may be that of a variable of another host is left to be looked at.
        """
        of_hosts = BY_NAME.search(self.text, start, end) is not None
        for block in re.finditer(r"\{\{.*?\}\}|\{%.*?%\}", self.text[start:end], re.DOTALL):
            by_name = BY_NAME.search(block[0]) is not None
            sets = re.match(r"\{%-?\s*set\b", block[0]) is not None
            for token in _tokens(quote).finditer(block[0]):
                name = token["name"] or token["string"]
                if name not in RENAMED:
                    continue
                before, after = block[0][: token.start()], block[0][token.end() :]
                if token["name"]:
                    attribute = before.rstrip().endswith(".")
                    other = re.match(r"\s*=(?!=)", after) and not sets
                    wanted = not attribute or OF_A_HOST.search(before)
                else:
                    other = OF_ENVIRONMENT.search(before)
                    wanted = by_name
                position = start + block.start() + token.start("name" if token["name"] else "string")
                if wanted and not other:
                    self.edits[position] = (position + len(name), RENAMED[name])
                elif of_hosts and not other:
                    self.leave(position, f"{name} is now {RENAMED[name]}, if that variable is meant")


def _tokens(quote: str | None) -> re.Pattern[str]:
    """Return what finds names and strings of Jinja inside a YAML scalar in quotes of a kind, or in none."""
    single, double = {"'": ("''", '"'), '"': ("'", r'\\"')}.get(quote, ("'", '"'))
    return re.compile(
        rf"(?P<quote>{single}|{double})(?:(?P<string>\w+)(?P=quote)|.*?(?P=quote))|(?P<name>\b[A-Za-z_]\w*)", re.DOTALL
    )


class YamlFile(Rewriter):
    """A YAML or JSON file: variables, or an inventory."""

    def __init__(self, text: str, findings: Findings, root: yaml.MappingNode):
        super().__init__(text, findings)
        self._root = root
        # A mapping with an anchor may be a variable's value in one place and variables in another.
        self._seen_variables: set[int] = set()
        self._seen_values: set[int] = set()

    def rewrite(self, variables: bool) -> None:
        """Collect the replacements; `variables` tells whether the file has nothing else."""
        (self._variables if variables else self._groups)(self._root)

    def _variables(self, mapping: yaml.Node) -> None:
        if not isinstance(mapping, yaml.MappingNode) or id(mapping) in self._seen_variables:
            return
        self._seen_variables.add(id(mapping))
        for merged in _merged(mapping):
            self._variables(merged)
        own = [(key, value) for key, value in mapping.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE]
        self.keys([(key.value, self._start(key)) for key, _ in own])
        for name, value in ((key.value, value) for key, value in own):
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
        elif id(node) not in self._seen_values:
            self._seen_values.add(id(node))
            for child in node.value:
                for part in child if isinstance(child, tuple) else (child,):
                    self._values(part)

    def _start(self, key: yaml.ScalarNode) -> int:
        # After an anchor, a tag or a quotation mark; not there if it is written with escapes.
        start = self.text.rfind(key.value, key.start_mark.index, key.end_mark.index)
        return key.start_mark.index if start < 0 else start


def _merged(node: yaml.MappingNode) -> Iterator[yaml.Node]:
    for key, value in node.value:
        if key.tag == MERGE:
            yield from value.value if isinstance(value, yaml.SequenceNode) else (value,)


def _items(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for merged in _merged(node):
            yield from _items(merged)
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                yield key.value, value


def _is_inventory(root: yaml.MappingNode) -> bool:
    """Tell whether a YAML file has groups, and not variables, as Ansible takes them apart."""
    return all(
        value.tag == "tag:yaml.org,2002:null"
        or (isinstance(value, yaml.MappingNode) and (not value.value or SECTIONS & dict(_items(value)).keys()))
        for _, value in _items(root)
    )


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
        for path in _files_below(root, set()) if root.is_dir() else [root]:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _files_below(directory: Path, entered: set[Path]) -> Iterator[Path]:
    """Find files as Ansible does, which follows links to directories; each directory is entered once."""
    if directory.resolve() in entered:
        return
    entered.add(directory.resolve())
    # What a link in group_vars leads to holds variables, wherever it lies.
    for path in sorted(directory.iterdir(), key=lambda path: (path.name not in VARIABLE_DIRECTORIES, path.name)):
        if IGNORED.match(path.name):
            continue
        if path.is_dir():
            yield from _files_below(path, entered)
        elif path.is_file():
            yield path


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
    variables = any(name in path.parts[:-1] for name in VARIABLE_DIRECTORIES)
    suffix = Path(path.name.removesuffix(".example")).suffix
    if variables and suffix and suffix not in YAML_SUFFIXES:
        return
    is_program, is_yaml = text.startswith("#!"), suffix in YAML_SUFFIXES or variables
    root = None
    if is_yaml or not suffix:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            if is_yaml and not is_program:
                findings.by_hand.append(f"{path} is not valid YAML: {' '.join(str(error).split())}")
                return
    is_mapping = isinstance(root, yaml.MappingNode) and not is_program
    rewriter: Rewriter
    if is_mapping and (variables or "plugin" not in dict(_items(root))):
        rewriter = YamlFile(text, findings, root)
        rewriter.rewrite(variables or not _is_inventory(root))
    elif is_program or suffix == ".toml" or (is_yaml and root):
        if old := sorted(set(OLD_NAME.findall(text))):
            changes = ", ".join(f"{name} -> {RENAMED[name]}" for name in old)
            findings.by_hand.append(f"{path} is not an inventory of hosts and variables: rename {changes} in it")
        return
    elif is_yaml:
        return
    else:
        rewriter = IniFile(text, findings)
        rewriter.rewrite()
    findings.by_hand += [f"{path}, {line}" for line in rewriter.by_hand]
    if rewriter.edits:
        findings.changed[path] = (rewriter.result(), rewriter.done())


def _ends_with(text: str, names: list[str]) -> bool:
    """Tell whether a YAML file is a mapping whose last keys are these."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return False
    return isinstance(root, yaml.MappingNode) and [key.value for key, _ in root.value[-len(names) :]] == names


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
    if text and not text.endswith("\n"):
        text += "\n"
    text += "# MinIO creates the bucket and the accounts that build.yml and deploy.yml use.\n" + lines
    if path in findings.encrypted or not _ends_with(text, list(missing)):
        findings.by_hand.append(f"{path} must have these lines too:\n{lines.rstrip()}")
        return
    findings.changed[path] = (text, [*done, f"added {', '.join(missing)}"])


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
    secrets = [f"{old} -> {new}" for old, new in RENAMED.items() if old.endswith("_key")]
    for path in findings.encrypted:
        print(f"{path} is encrypted: run `ansible-vault edit {path}` and rename what it has of {', '.join(secrets)}")
    for line in findings.by_hand:
        print(f"by hand: {line}")
    return 1 if findings.by_hand else 0


if __name__ == "__main__":
    sys.exit(main())
