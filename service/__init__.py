"""The HTTP service: decode four images, segment them, encode the label map; nothing else.

The rooms, from the outside in: `app` builds the application, `routes` answer, `uploads` and
`negotiation` read what the caller sent and wants, `worker` runs one inference at a time off the
event loop, `registry` holds the loaded models, `errors` turns every exception into one JSON shape,
`metrics` and `observability` tell the operator what happened without a word about the patient.
"""
