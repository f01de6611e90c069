"""Reads metrics with the parsers of Prometheus: metrics.py openmetrics|text FILE. Prints the name of each sample once."""

import sys

try:
    from prometheus_client import parser
    from prometheus_client.openmetrics import parser as open_parser
except ImportError:
    print("no parser")
    sys.exit()

form, file = sys.argv[1:]
with open(file, encoding="utf-8") as opened:
    text = opened.read()
read = open_parser if form == "openmetrics" else parser
families = list(read.text_string_to_metric_families(text))
names = sorted({sample.name for family in families for sample in family.samples})
print("\n".join(names))
