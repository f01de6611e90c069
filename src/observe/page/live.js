(() => {
  "use strict";
  const EVERY = 2000;
  const note = document.getElementById("live");
  const spoken = document.getElementById("spoken");
  let lastAnswer = note.dataset.at;
  let state = document.querySelector("main").dataset.state;
  async function refresh() {
    const stop = new AbortController();
    const limit = setTimeout(() => stop.abort(), 5000);
    try {
      const answer = await fetch("/", { cache: "no-store", signal: stop.signal });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.querySelector("main");
      if (!next) throw new Error("no page");
      // A table that was scrolled, or has the focus, keeps that.
      const old = [...document.querySelectorAll("main .sheet")];
      const kept = old.map((sheet) => sheet.scrollLeft);
      const focused = old.indexOf(document.activeElement);
      document.querySelector("main").replaceWith(document.adoptNode(next));
      document.title = page.title;
      document.querySelectorAll("main .sheet").forEach((sheet, at) => {
        sheet.scrollLeft = kept[at] || 0;
        if (at === focused) sheet.focus({ preventScroll: true });
      });
      if (next.dataset.state !== state) {
        state = next.dataset.state;
        spoken.textContent = next.querySelector("h1").textContent;
      }
      lastAnswer = page.getElementById("live").dataset.at;
      document.body.classList.remove("stale");
      note.textContent = "live, " + lastAnswer + " UTC";
    } catch (error) {
      const words = "no answer since " + lastAnswer + " UTC: these figures are old";
      if (!document.body.classList.contains("stale")) spoken.textContent = words;
      document.body.classList.add("stale");
      note.textContent = words;
    } finally {
      clearTimeout(limit);
    }
  }
  async function loop() {
    if (!document.hidden) await refresh();
    setTimeout(loop, EVERY);
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  note.textContent = "live, " + lastAnswer + " UTC";
  setTimeout(loop, EVERY);
})();
