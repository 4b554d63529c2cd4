"""Filter `minio_credential_problems`: what is wrong with credentials, by the names of the role's variables."""

from __future__ import annotations

import pytest

from collection_module import load_module

problems = load_module("minio_credentials", "filter").minio_credential_problems

ROOT = {"root_user": "administrator", "root_password": "long enough for it"}
PUBLISHER = {"access_key": "publisher", "secret_key": "also long enough"}
READER = {"access_key": "reader", "secret_key": "again long enough"}
NONE = {"access_key": "", "secret_key": ""}


@pytest.mark.parametrize("reader", [READER, NONE], ids=["both", "no reader"])
def test_good_credentials_have_no_problem(reader):
    assert problems({"publisher": PUBLISHER, "reader": reader}, **ROOT) == []


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        ({"root_user": "me"}, "minio_root_user needs at least 3 characters"),
        ({"root_user": "minioadmin"}, "minio_root_user is MinIO's own default, which anyone could guess"),
        ({"root_password": "short"}, "minio_root_password needs at least 12 characters"),
        ({"root_user": "long enough for it"}, "minio_root_password is the same as minio_root_user"),
    ],
)
def test_problem_of_the_administrator(root, problem):
    assert problems({"publisher": NONE, "reader": NONE}, **{**ROOT, **root}) == [problem]


@pytest.mark.parametrize(
    ("reader", "found"),
    [
        ({**READER, "access_key": "publisher"}, ["minio_reader_access_key is the name of another account"]),
        ({**READER, "access_key": "administrator"}, ["minio_reader_access_key is the name of another account"]),
        ({**READER, "secret_key": ""}, ["minio_reader_secret_key needs at least 12 characters"]),
        (
            {"access_key": "", "secret_key": "short"},
            [
                "minio_reader_access_key needs at least 3 characters",
                "minio_reader_secret_key needs at least 12 characters",
            ],
        ),
    ],
    ids=["name of the publisher", "name of the administrator", "no secret", "no name"],
)
def test_problems_of_an_account(reader, found):
    assert problems({"publisher": PUBLISHER, "reader": reader}, **ROOT) == found
