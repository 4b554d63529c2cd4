"""Filter that finds what is wrong with the credentials of role `minio`."""

from __future__ import annotations

NAME_CHARACTERS = 3
SECRET_CHARACTERS = 12


def minio_credential_problems(accounts: dict[str, dict[str, str]], root_user: str, root_password: str) -> list[str]:
    """Return what MinIO, or anyone who guesses, would make of the credentials: one problem per line.

    `accounts` maps `publisher` and `reader` to `access_key` and `secret_key`; one with neither is not wanted. Messages
    name the variables of the role, never a secret.
    """
    problems = []
    if len(root_user) < NAME_CHARACTERS:
        problems.append(f"minio_root_user needs at least {NAME_CHARACTERS} characters")
    elif root_user == "minioadmin":
        problems.append("minio_root_user is MinIO's own default, which anyone could guess")
    if len(root_password) < SECRET_CHARACTERS:
        problems.append(f"minio_root_password needs at least {SECRET_CHARACTERS} characters")
    elif root_password == root_user:
        problems.append("minio_root_password is the same as minio_root_user")
    names = {root_user}
    for account, keys in accounts.items():
        if not any(keys.values()):
            continue
        if len(keys["access_key"]) < NAME_CHARACTERS:
            problems.append(f"minio_{account}_access_key needs at least {NAME_CHARACTERS} characters")
        elif keys["access_key"] in names:
            problems.append(f"minio_{account}_access_key is the name of another account")
        names.add(keys["access_key"])
        if len(keys["secret_key"]) < SECRET_CHARACTERS:
            problems.append(f"minio_{account}_secret_key needs at least {SECRET_CHARACTERS} characters")
    return problems


class FilterModule:
    """The filter, by its name in templates."""

    def filters(self) -> dict[str, object]:
        """Return name -> function."""
        return {"minio_credential_problems": minio_credential_problems}
