"""The page that the service shows to people, and the study that they may try it with.

What a browser gets lies in ``static``, ready to be sent: plain HTML, CSS and ES modules, with no
build step. ``static/vendor`` holds NiiVue as it was published, with its licence and checksum.
"""
