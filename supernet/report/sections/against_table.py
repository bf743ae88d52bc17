"""What a table of trained architectures knows of the genotype of each epoch."""

from supernet.report import page
from supernet.report.document import Drawn, drawing
from supernet.report.run_files import RunFiles
from supernet.report.series import Chart, chart

CHARTS = (("Regret", "regret (% points)", {"regret": "regret"}),
          ("Test accuracy", "accuracy (%)", {"this genotype": "test_accuracy", "best of the space": "best_accuracy",
                                             "mean of the space": "mean_accuracy"}),
          ("Rank", "rank", {"rank": "rank"}))


def shown(run: RunFiles) -> Drawn | None:
    """A row of charts a data set."""
    names = sorted({key.split("/")[1] for r in run.records for key in r if key.startswith("table/") and key.count("/") == 2})
    if not names:
        return None
    html, data = [], {}
    for n, name in enumerate(names):
        found = [chart(run, Chart(title, y_label, {line: f"table/{name}/{key}" for line, key in keys.items()}))
                 for title, y_label, keys in CHARTS]
        data[f"table{n}"] = [one for one in found if one]
        html += [page.heading(name), drawing(f"table{n}", kind="charts", label=f"regret, test accuracy and rank on {name}")]
    note = ("The genotype that would be selected after each epoch, looked up among architectures that were trained alone. Regret: the best "
            "test accuracy of the space minus this one's. The search itself never sees these numbers.")
    return Drawn(page.paragraph(note, soft=True) + "\n".join(html), data)
