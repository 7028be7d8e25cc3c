"""The service and a PACS: studies in by WADO-RS, results out by STOW-RS (DICOM PS3.18).

`client` is the door. `servers` reads which archives the operator has configured, `session` makes a
careful connection to one, `listing` asks what it has (QIDO-RS), `pull` fetches a study and `push`
hands objects over for a `receipt`. `errors` says what can go wrong, `cli` has the commands
``segmamba dicom …``. No caller of the service names an address: it names a configured archive.
"""
