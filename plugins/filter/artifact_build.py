"""Filters that describe a build of role `artifact_build`: its models, what is staged of them, the Dockerfile."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.whisper.xeon.plugins.plugin_utils import app_path  # noqa: F401 - for the packages of app/

from whisper_package.errors import PackageError
from whisper_package.models import ALIASES, MODEL_CONFIGS, did_you_mean, model_name

LOCAL_NOTICE = (
    "The weights and the clip are those that were given to the builder as local files; whoever built this package "
    "knows under which terms."
)

# How alike a name must be to one that is built, to be taken for a typo of it: meduim and medium, not medium-de.
_TYPO = 0.81
_DECLARE = (
    "a model of your own is declared in artifact_build_model_overrides, by its name, with path and selftest (audio, "
    "language, text)"
)


def artifact_build_model_problems(models: list[Any], overrides: Any) -> list[str]:
    """Return what is wrong with the names of the models to build and of the overrides, and with models of one's own."""
    if not isinstance(overrides, Mapping):
        return [f"artifact_build_model_overrides is not a dictionary: {_DECLARE}"]
    problems: list[str] = []
    declared: dict[str, Any] = {}
    for text, name in _named("artifact_build_model_overrides", overrides, problems):
        if name in declared:
            problems.append(f"artifact_build_model_overrides names {name} twice, once as {text}: keep one")
        declared[name] = overrides[text]
    built = []
    for text, name in _named("artifact_build_models", models, problems):
        built.append(name)
        if name not in declared and name not in MODEL_CONFIGS:
            there = (*declared, *MODEL_CONFIGS, *ALIASES)
            problems.append(
                f"artifact_build_models names {text}{did_you_mean(name, there)}, which is neither a released model "
                f"({', '.join((*MODEL_CONFIGS, *ALIASES))}) nor declared: {_DECLARE}"
            )
    unchanged = [name for name in built if name not in declared]
    for name, override in declared.items():
        # A typo of a model that is built from what is pinned, which nobody would notice.
        meant = difflib.get_close_matches(name, unchanged, n=1, cutoff=_TYPO)
        if not isinstance(override, Mapping):
            problems.append(f"artifact_build_model_overrides.{name} is not a dictionary: {_DECLARE}")
        elif name not in (*MODEL_CONFIGS, *built) and meant:
            problems.append(
                f"artifact_build_model_overrides names {name}, which is not built: did you mean {meant[0]}? If it is a "
                "model of your own, add it to artifact_build_models"
            )
        elif lacking := _lacking(name, override):
            problems.append(f"artifact_build_model_overrides.{name} lacks {', '.join(lacking)}: {_DECLARE}")
    return problems


def _named(variable: str, texts: Iterable[Any], problems: list[str]) -> Iterator[tuple[Any, str]]:
    """Yield each text with the model that it means; what cannot be a name becomes a problem."""
    for text in texts:
        try:
            yield text, model_name(str(text))
        except PackageError as error:
            problems.append(f"{variable}: {error}")


def _lacking(name: str, override: Mapping[str, Any]) -> list[str]:
    """Return what an override must have and has not: nothing, for a model that versions.yml has too."""
    if name in MODEL_CONFIGS:
        return []
    selftest = override.get("selftest")
    parts = selftest if isinstance(selftest, Mapping) else {}
    lacking = [f"selftest.{part}" for part in ("audio", "language", "text") if part not in parts]
    if "path" not in override and not {"sources", "notice"} <= override.keys():
        lacking.insert(0, "path (or sources and notice)")
    return lacking


def artifact_build_wanted(
    models: list[str], pinned: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return model -> `sources`, `notice` and `selftest`, as versions.yml pins them and the overrides change them.

    `models` are names as packages have them; the overrides may have others that mean the same.
    """
    wanted = {}
    changed = {model_name(str(model)): override for model, override in overrides.items()}
    for model in models:
        override = changed.get(model, {})
        base = pinned.get(model, {"selftest": {}})
        local = {"sources": [{"path": override["path"]}], "notice": LOCAL_NOTICE} if "path" in override else {}
        changes = {**local, **override}
        selftest = {**base["selftest"], **changes.get("selftest", {})}
        wanted[model] = {**base, **changes, "selftest": selftest}
    return wanted


def artifact_build_staged(
    wanted: Mapping[str, Mapping[str, Any]], fetched: Mapping[str, Mapping[str, Any]], tree: str
) -> dict[str, dict[str, Any]]:
    """Return what a build context gets for the models.

    `fetched` maps each model to the `path` and `sha256` of its weights, the `parts` of third parties that it came in
    and the `alignment_heads` that it states; `tree` is the whisper.cpp source. All are empty until they are downloaded
    (check mode), and so are the sources then. Returns `files` (path in the context: source), `sha256` (path in the
    context: digest) and `settings` (model: its part of build.json).
    """
    files, sha256, settings = {}, {}, {}
    for model, entry in wanted.items():
        weights, clip = f"models/{model}.bin", PurePosixPath(entry["selftest"]["audio"])
        files[weights], sha256[weights] = fetched[model]["path"], fetched[model]["sha256"]
        # A relative clip is in the whisper.cpp tree.
        files[f"selftest/{model}.wav"] = str(clip if clip.is_absolute() else PurePosixPath(tree, clip) if tree else "")
        settings[model] = {
            "source_sha256": fetched[model]["sha256"],
            "parts": fetched[model]["parts"],
            "alignment_heads": fetched[model]["alignment_heads"],
            "notice": entry["notice"],
            "selftest": {name: entry["selftest"][name] for name in ("language", "text")},
        }
    return {"files": files, "sha256": sha256, "settings": settings}


def dockerfile_arguments(text: str, arguments: Mapping[str, str | list[str]]) -> str:
    """Return a Dockerfile with other defaults of its arguments; a list becomes one in quotes, separated by blanks."""
    for name, value in arguments.items():
        default = value if isinstance(value, str) else f'"{" ".join(value)}"'
        line = f"ARG {name}={default}".replace("\\", r"\\")
        text, count = re.subn(rf"(?m)^ARG {name}=.*$", line, text)
        if not count:
            raise AnsibleFilterError(f"the Dockerfile has no line ARG {name}=")
    return text


class FilterModule:
    """The filters, by their names in templates."""

    def filters(self) -> dict[str, Any]:
        """Return name -> function."""
        return {
            "artifact_build_model_problems": artifact_build_model_problems,
            "artifact_build_wanted": artifact_build_wanted,
            "artifact_build_staged": artifact_build_staged,
            "dockerfile_arguments": dockerfile_arguments,
        }
