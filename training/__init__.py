"""The training room: turns a folder of labelled studies into a model bundle.

It may use everything in `model_core`, knows nothing of `service`, and is never imported by it.

For a guided tour: `recipes` (what is trained), `trainer` (the loop), `sampler` (what a step sees),
`losses` (what it is judged by), `validate` (how the result is measured).
"""
