"""The artifact store: releases and channels in an S3 bucket (MinIO, or any other endpoint that speaks plain S3).

Runs on the control node and in the container, where botocore is. It imports `whisper_package` to read packages; the
service never imports it, so a host needs neither botocore nor a credential.
"""
