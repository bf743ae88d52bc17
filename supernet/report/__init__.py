"""What a run leaves to look at: cell drawings, curves, and one page that holds them.

Nothing is imported here, so that the library loads without matplotlib: import `supernet.report.draw`, `.curves` or `.html`
where something is drawn.
"""
