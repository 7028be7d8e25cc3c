"""A door for assistants: the service's operations as tools of the Model Context Protocol (MCP).

An assistant's program starts ``segmamba mcp`` and speaks with it over its standard input and
output. `tools` has what can be asked, `answers` what comes back, `folder` which files may be named,
`server` ties them to the official ``mcp`` package, `cli` is the command. It talks to a running
service by `service.client` and computes nothing itself.

Read-only unless the user said otherwise: tools that make or cancel jobs do not exist without
``--allow-segment``. No answer holds a path, a UID or anything else that could say who a patient is.
"""
