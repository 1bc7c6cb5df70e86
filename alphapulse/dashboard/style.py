"""Dress the page: calm, dark, and without flicker between two refreshes."""

STYLE = """
<style>
  .block-container {padding: 1.2rem 1.6rem 3rem; max-width: 1900px;}
  [data-testid="stHeader"] {background: transparent; height: 1.2rem;}
  [data-testid="stSidebarHeader"] {height: 1.6rem; padding-bottom: 0; margin-bottom: 0;}
  [data-testid="stSidebar"] [data-testid="stVerticalBlock"] {gap: 0.55rem;}
  [data-testid="stSidebar"] button {min-height: 1.9rem; padding: 0 0.4rem;}
  [data-testid="stSidebar"] button p {font-size: 0.8rem;}
  [data-testid="stSidebar"] p {font-size: 0.8rem;}
  /* a part that is being refreshed keeps its colour: once a second, fading is flicker */
  [data-stale="true"] {opacity: 1 !important; transition: none !important;}
  [data-testid="stMetric"] {padding: 0.5rem 0.8rem !important; background: #171d27;}
  [data-testid="stMetric"] > div {padding: 0;}
  [data-testid="stMetricLabel"] p {font-size: 0.78rem; color: #8a94a6;}
  [data-testid="stMetricValue"] {font-size: 1.4rem; font-variant-numeric: tabular-nums;}
  [data-testid="stMetricDelta"], [data-testid="stMetricDelta"] * {
    background: none; padding: 0; font-size: 0.72rem; color: #8a94a6;
    white-space: nowrap; overflow: visible; font-variant-numeric: tabular-nums;
  }
  [data-testid="stTable"] table {font-size: 0.78rem; font-variant-numeric: tabular-nums;}
  [data-testid="stTable"] p {font-size: 0.78rem;}
  [data-testid="stTable"] :is(td, th) {padding: 0.22rem 0.35rem;}
  [data-testid="stMarkdownContainer"] h5 {
    font-size: 1rem; padding: 0.3rem 0 0.45rem; font-weight: 600; color: #aab4c5;
  }
</style>
"""
