#!/usr/bin/env python3
"""Makes the series in this folder: `python3 make.py` writes the same files every time.

fleet.csv   8 sensors, one reading each every 5 s or so for 25 minutes, with a reading's own columns.
            One in ten readings is up to 4 s older than its place says (the tests' watermark is 5 s, so each still counts);
            one in fifty is 30 to 60 s older and late. The column `late` says which; it is not a column of a reading.
boiler.csv  `timestamp,value`: one sensor, in order, with gaps, repeated times and values below zero.
cellar.csv  the same, ISO times with fractions of a second.
bad.csv     readings among lines that are none; the column `bad` says why.
"""
import math
import random
from datetime import datetime, timedelta, timezone

random.seed(7)
T0 = 1_700_000_000_000

with open("fleet.csv", "w") as out:
    out.write("sensor_id,ts,value,kind,seq,late\n")
    seq = 0
    for step in range(0, 1_500_000, 625):
        sensor = seq % 8
        ts, late = T0 + step, 0
        dice = random.random()
        if dice < 0.02 and step > 120_000:
            ts, late = ts - random.randint(30_000, 60_000), 1
        elif dice < 0.12:
            ts -= random.randint(1, 4_000)
        value = round(20 + sensor * 3 + 5 * math.sin(step / 60_000 + sensor) + random.gauss(0, 0.7), 3)
        kind = ["temperature", "humidity", "vibration"][sensor % 3]
        out.write(f"s-{sensor:02},{ts},{value},{kind},{seq},{late}\n")
        seq += 1

for name, rows, spread in [("boiler", 900, 40.0), ("cellar", 700, 6.0)]:
    with open(f"{name}.csv", "w") as out:
        out.write("timestamp,value\n")
        at = datetime(2016, 2, 28, 22, 0, tzinfo=timezone.utc)
        for row in range(rows):
            gap = random.choice([0, 1, 1, 1, 2, 5]) if row % 100 else 600
            fraction = timedelta(milliseconds=random.randint(0, 900)) if name == "cellar" else timedelta()
            at += timedelta(seconds=gap)
            value = spread * math.sin(row / 50) + random.gauss(0, 1)
            when = at + fraction * (gap > 0)
            text = when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" if name == "cellar" else at.strftime("%Y-%m-%d %H:%M:%S")
            out.write(f"{text},{value!r}\n")

with open("bad.csv", "w") as out:
    out.write("timestamp,value,bad\n")
    for row in range(60):
        when = f"2020-06-01 00:{row:02}:00"
        bad = {10: ("", 1, "no time"), 20: ("yesterday", 1, "time is no time"), 30: (when, "warm", "value is no number"), 40: (when, "", "no value")}
        ts, value, why = bad.get(row, (when, row / 4, ""))
        out.write(f"{ts},{value},{why}\n")
