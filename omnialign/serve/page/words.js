// What is known of an item, in words.

export function title(item) {
  const { text, caption, title, label } = item.metadata;
  const said = text ?? caption ?? title ?? label;
  return String((Array.isArray(said) ? said[0] : said) || item.name);
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return (parts[0] ? parts : parts.slice(1))
    .map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
}

/** The stretch that fits, unless it is the beginning. */
export function moment(item) {
  return item.start_seconds > 0 ? `${clock(item.start_seconds)} to ${clock(item.end_seconds)}` : "";
}

/** A calibrated score as people say it. */
export function match(score) {
  if (score >= 0.9) return "very good match";
  if (score >= 0.5) return "good match";
  if (score >= 0.1) return "possible match";
  return "weak match";
}
