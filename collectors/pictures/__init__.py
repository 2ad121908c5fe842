"""The headline figures as pictures.

    draw  one figure: matplotlib, as PNG or SVG
    page  all figures and their numbers as one HTML file that needs nothing else

Knows the numbers of collectors.headline, and no lake.
"""
