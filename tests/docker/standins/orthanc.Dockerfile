# Stands in for jodogne/orthanc-plugins where no registry is reached: Debian's Orthanc with DICOMweb.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends orthanc orthanc-dicomweb \
    && rm -rf /var/lib/apt/lists/* /etc/orthanc/* \
    && install -d -o root -g root /var/lib/orthanc /var/lib/orthanc/db
ENTRYPOINT ["Orthanc"]
CMD ["/etc/orthanc/"]
