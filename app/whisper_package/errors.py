"""The errors of a package; their messages say what is wrong, where, and what to do about it."""

from __future__ import annotations


class PackageError(Exception):
    """A package is missing, incomplete, altered or newer than this reader."""


class ModelFileError(PackageError):
    """The model file is missing, damaged, or not a Whisper model."""


class OldLayoutError(PackageError):
    """A package in the layout from before manifests: a build's libraries and the weights, and nothing about them."""


class VariantError(PackageError):
    """This host's processor cannot run the CPU library that was requested, or any of the package."""
