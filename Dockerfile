# The job in a container: `docker build -t movielens_pipeline .` makes the image with the embedded engine alone;
# `docker build --target spark -t movielens_pipeline:spark .` adds Apache Spark;
# `docker build --target aws -t movielens_pipeline:aws .` is another, with what starts the job on EMR and no engine.

# ------------------------------------------------------------------------------------------------------------------
FROM python:3.13-slim-trixie AS base

LABEL org.opencontainers.image.title="movielens_pipeline" \
      org.opencontainers.image.version="0.6.7" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13-slim-trixie"

# ------------------------------------------------------------------------------------------------------------------
FROM base AS embedded-environment

COPY requirements/embedded.txt /
# Without what only the check and the report need, installers, and what packages carry for their developers
RUN python -m venv /opt/movielens/environment \
    && /opt/movielens/environment/bin/pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --requirement embedded.txt \
    && /opt/movielens/environment/bin/pip uninstall --yes --quiet duckdb jinja2 markupsafe pip setuptools \
    && find /opt/movielens/environment -type d \( -name tests -o -name include -o -name src \) -prune -exec rm -r {} +

# ------------------------------------------------------------------------------------------------------------------
# What both images have in common and what seldom changes; the job itself comes last, so that a change is built soon
FROM base AS common

LABEL org.opencontainers.image.description="Four Parquet datasets made from a release of MovieLens"
COPY --from=embedded-environment /opt/movielens/environment /opt/movielens/environment
ENV HOME=/tmp MOVIELENS_ENGINE=sail
WORKDIR /app
ENTRYPOINT ["/opt/movielens/scripts/entrypoint.sh"]

# ------------------------------------------------------------------------------------------------------------------
FROM common AS java

# hadolint ignore=DL3008  # Debian keeps only the newest version of a package, and that has the security fixes
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-21-jre-headless libnss-wrapper \
    && rm -rf /var/lib/apt/lists/*

# ------------------------------------------------------------------------------------------------------------------
FROM java AS pyspark

COPY requirements/spark.txt requirements/s3-jars.sha256 /
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --require-hashes \
        --target /packages --requirement /spark.txt \
    && mv /packages/pyspark /opt/movielens/pyspark
COPY scripts/common.sh scripts/environments.sh /opt/movielens/scripts/
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# to where Spark looks for jars by itself
RUN source /opt/movielens/scripts/common.sh \
    && source /opt/movielens/scripts/environments.sh \
    && make_s3_jars /opt/movielens/pyspark /opt/movielens/s3-jars /s3-jars.sha256 \
    && mv /opt/movielens/s3-jars/*.jar /opt/movielens/pyspark/jars/ \
    && rename_doubled_jar /opt/movielens/pyspark

# ------------------------------------------------------------------------------------------------------------------
FROM java AS spark

COPY --from=pyspark /opt/movielens/pyspark /opt/movielens/pyspark
ENV PATH=/opt/movielens/pyspark/bin:$PATH \
    SPARK_HOME=/opt/movielens/pyspark \
    SPARK_LOCAL_IP=127.0.0.1 \
    MOVIELENS_ENGINE=spark \
    CLASS_ARCHIVE=-XX:SharedArchiveFile=/opt/movielens/spark.jsa
COPY scripts/spark-conf/ /opt/movielens/scripts/spark-conf/
COPY scripts/entrypoint.sh scripts/common.sh scripts/upload_dataset.py /opt/movielens/scripts/
COPY movielens/ /opt/movielens/movielens/
COPY movielens_pipeline.py /opt/movielens/
# A run of the job, of which the classes are kept that it loads: later runs need not load them one by one. Compiled by
# the quick compiler alone, for nothing else of this run is kept.
COPY dataset/*.dat /tmp/dataset/
RUN KEEP_USER=yes CLASS_ARCHIVE='-XX:ArchiveClassesAtExit=/opt/movielens/spark.jsa -XX:TieredStopAtLevel=1' \
        /opt/movielens/scripts/entrypoint.sh --input_path /tmp/dataset --output_path /tmp/output \
    && test -s /opt/movielens/spark.jsa \
    && rm -rf /tmp/*

# ------------------------------------------------------------------------------------------------------------------
# The AWS command line is no part of the image that runs the job: that one is pulled by every task, and needs none of it
FROM base AS aws

LABEL org.opencontainers.image.description="What starts movielens_pipeline on Amazon EMR"
COPY requirements/aws.txt /
RUN python -m venv /opt/movielens/.venv-aws \
    && /opt/movielens/.venv-aws/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        --requirement aws.txt \
    && /opt/movielens/.venv-aws/bin/pip uninstall --yes --quiet pip setuptools \
    && find /opt/movielens/.venv-aws -type d -name examples -prune -exec rm -r {} +
ENV HOME=/tmp PATH=/opt/movielens/.venv-aws/bin:$PATH
COPY dataset/*.dat /opt/movielens/dataset/
COPY scripts/aws.sh scripts/check_aws.sh scripts/common.sh scripts/environments.sh scripts/emr_cluster.sh \
     scripts/emr_serverless.sh scripts/upload_dataset.py /opt/movielens/scripts/
COPY movielens/ /opt/movielens/movielens/
COPY exec_EMR_compute_s3_storage.sh movielens_pipeline.py /opt/movielens/
WORKDIR /tmp
USER 1000:1000
ENTRYPOINT ["/opt/movielens/exec_EMR_compute_s3_storage.sh"]

# ------------------------------------------------------------------------------------------------------------------
# The last, and so what is built where no target is named
FROM common AS embedded

COPY scripts/entrypoint.sh scripts/common.sh scripts/upload_dataset.py /opt/movielens/scripts/
COPY movielens/ /opt/movielens/movielens/
COPY movielens_pipeline.py /opt/movielens/
