"""Horizontal bars as SVG, readable on light and on dark ground."""
import math
from xml.sax.saxutils import escape

# By how a name begins: this project's, what is only there to compare with, other people's.
COLOURS = [('ours', '#2f6fde'), ('floor', '#8a8f98'), ('inflate', '#8a8f98'), ('layers', '#8a8f98'), ('', '#d9822b')]
STYLE = '''text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px } .quiet { fill: #57606a } .grid { stroke: #d0d7de }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .quiet { fill: #9198a1 } .grid { stroke: #3d444d } }'''
LEFT, WIDTH, RIGHT = 240, 460, 130
BAR, GAP, TOP = 15, 12, 36


def bars(title, groups, unit='s', log=False):
    """`groups` is a list of (label, [(name, value or None)]); None is a failure and is written as one."""
    values = [value for _, rows in groups for _, value in rows if value]
    if not values:
        return None
    scale = Scale(min(values), max(values), log, unit)
    parts, y = [], TOP
    for label, rows in groups:
        if label:
            parts.append(text(8, y + 12, label, 'title'))
            y += 20
        for name, value in rows:
            parts.append(text(LEFT - 8, y + 12, name, anchor='end'))
            length = scale.at(value) if value else 0
            if value:
                colour = next(colour for start, colour in COLOURS if name.startswith(start))
                parts.append('<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" fill="%s"/>' % (LEFT, y, max(length, 1), BAR, colour))
            parts.append(text(LEFT + length + 6, y + 12, shown(value, unit) if value is not None else 'failed', 'quiet'))
            y += BAR + 4
        y += GAP
    grid = []
    for tick in scale.ticks():
        x = LEFT + scale.at(tick)
        grid.append('<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>' % (x, x, TOP - 4, y - GAP))
        grid.append(text(x, y + 4, shown(tick, unit), 'quiet', 'middle'))
    heading = title + (' (logarithmic axis)' if log else '')
    size = (LEFT + WIDTH + RIGHT, y + 14)
    return '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">\n<style>%s</style>\n%s\n</svg>\n' % (
        *size, *size, STYLE, '\n'.join([text(8, 18, heading, 'title'), *grid, *parts]))


class Scale:
    def __init__(self, least, most, log, unit):
        # Bytes are counted in powers of 1024, and so are the steps of their axis.
        self.one = 1024 ** math.floor(math.log(most, 1024)) if unit == 'bytes' else 1
        self.log, least, most = log, least / self.one, most / self.one
        if log:
            self.low, self.high = math.floor(math.log10(least)), math.ceil(math.log10(most) + 1e-9)
            self.high += self.high == self.low
        else:
            step = 10.0 ** math.floor(math.log10(most))
            self.step = next(s for s in (step / 5, step / 2, step, step * 2) if most / s <= 6 or s == step * 2)
            self.low, self.high = 0, math.ceil(most / self.step - 1e-9) * self.step

    def at(self, value):
        value /= self.one
        value = math.log10(value) if self.log else value
        return WIDTH * (value - self.low) / (self.high - self.low)

    def ticks(self):
        if self.log:
            return [10.0 ** n * self.one for n in range(self.low, self.high + 1)]
        return [self.step * n * self.one for n in range(round(self.high / self.step) + 1)]


def shown(value, unit):
    """A figure with three digits, in a unit that fits."""
    if unit == 's':
        return digits(value) + ' s' if value >= 1 else digits(value * 1e3) + ' ms'
    if unit == 'bytes':
        for name in ('B', 'KiB', 'MiB'):
            if value < 1024:
                return '%s %s' % (digits(value), name)
            value /= 1024
        return digits(value) + ' GiB'
    return (digits(value) + ' ' + unit).strip()


def digits(value):
    if value == 0 or value >= 100:
        return '%.0f' % value
    return '%.*f' % (1 if value >= 10 else 2, value)


def text(x, y, words, css='', anchor=''):
    return '<text x="%.1f" y="%d"%s%s>%s</text>' % (
        x, y, ' class="%s"' % css if css else '', ' text-anchor="%s"' % anchor if anchor else '', escape(words))
