"""The process that computes: one per device, its model warm, its work taken from the job queue.

The API never imports this package, and so never torch.
"""
