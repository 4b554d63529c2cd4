# The packages as an image that hands them out:
#
#   make builder                        # once, and after each change: downloads, compiles, quantizes
#   docker build -t whisper-builder .
#   docker run -v $(pwd)/artifacts:/output whisper-builder cp -r /release_artifacts /output/
#
# `make builder` compiles in Docker too, by docker/builder/Dockerfile. Sources and models are downloaded outside, each with
# its pinned digest: that is why something must come first. What is left here any builder can do, also one without
# BuildKit or network.
FROM scratch
# Its name is what docker prints where `make builder` has not been run.
COPY .build/run-make-builder-first/ /
CMD ["cp", "-r", "/release_artifacts", "/output/"]
