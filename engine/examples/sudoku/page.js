(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const make = (tag, name = "", text = "") => {
    const made = document.createElement(tag);
    made.className = name;
    made.textContent = text;
    return made;
  };
  const UNSURE = 2;
  const FRAME_MS = 900;
  const steps = data.steps;
  const free = data.cells.map((cell, at) => (cell.free ? at : -1)).filter((at) => at >= 0);
  const numClues = data.cells.length - free.length;

  byId("summary").textContent = `${numClues} clues; ${data.right} of ${free.length} free cells right after ${steps.length} of at most ${data.most_steps} steps of the model ${data.model}.`;
  const cells = data.cells.map((cell) => {
    const made = make("span", cell.free ? "cell" : "cell given");
    made.append(make("span", "seen"), make("span", "token", cell.free ? "" : cell.digit));
    byId("grid").append(made);
    return made;
  });

  // Free cells whose digit was kept at an earlier step and replaced by noise, and where another digit is likeliest now.
  const corrections = [];
  const kept = new Map();
  const lost = new Map();
  for (const step of steps) {
    corrections.push(new Set(free.map((_, number) => number).filter((number) => lost.has(number) && lost.get(number) !== step.best[number])));
    step.accepted.forEach((isKept, number) => {
      if (isKept) kept.set(number, step.best[number]);
      else if (kept.has(number)) {
        lost.set(number, kept.get(number));
        kept.delete(number);
      }
    });
  }

  let current = 0;
  const draw = () => {
    const isStart = current === 0;
    const step = steps[Math.max(0, current - 1)];
    free.forEach((at, number) => {
      const [seen, token] = cells[at].children;
      seen.textContent = isStart ? "" : step.seen[number];
      token.textContent = isStart ? step.seen[number] : step.best[number];
      const kind = isStart ? "start" : step.accepted.length ? (step.accepted[number] ? "accepted" : "renoised") : "accepted";
      const isCorrected = !isStart && corrections[current - 1].has(number);
      const isWrong = !isStart && step.best[number] !== data.cells[at].digit;
      cells[at].className = `cell ${kind}${isCorrected ? " corrected" : ""}${isWrong ? " wrong" : ""}`;
      cells[at].style.setProperty("--u", isStart ? 0 : Math.min(1, step.entropy[number] / UNSURE));
    });
    const right = isStart ? 0 : free.filter((at, number) => step.best[number] === data.cells[at].digit).length;
    byId("now").textContent = isStart ? "Before the first step" : `Step ${current} of ${steps.length}: ${right} of ${free.length} right`;
    byId("slider").value = String(current);
    [...byId("ticks").children].forEach((tick, at) => tick.classList.toggle("here", at === current));
  };

  let timer = null;
  const go = (to) => {
    current = Math.min(Math.max(0, to), steps.length);
    draw();
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    byId("play").setAttribute("aria-pressed", "false");
    byId("play").setAttribute("aria-label", "Play");
  };
  const play = () => {
    if (timer !== null) return pause();
    byId("play").setAttribute("aria-pressed", "true");
    byId("play").setAttribute("aria-label", "Pause");
    if (current === steps.length) go(0);
    timer = setInterval(() => {
      go(current + 1);
      if (current === steps.length) pause();
    }, FRAME_MS);
  };
  const moves = { first: () => 0, back: () => current - 1, on: () => current + 1, last: () => steps.length };
  for (const [id, to] of Object.entries(moves)) {
    byId(id).addEventListener("click", () => {
      pause();
      go(to());
    });
  }
  byId("play").addEventListener("click", play);
  const slider = byId("slider");
  slider.max = String(steps.length);
  slider.addEventListener("input", () => {
    pause();
    go(Number(slider.value));
  });
  for (let at = 0; at <= steps.length; at += 1) byId("ticks").append(make("li", "", at ? String(at) : "noise"));
  const keys = { Home: moves.first, ArrowLeft: moves.back, ArrowRight: moves.on, End: moves.last };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target !== slider && keys[event.key]) {
      event.preventDefault();
      pause();
      go(keys[event.key]());
    } else if (event.key === " " && !event.target.closest("button")) {
      event.preventDefault();
      play();
    }
  });
  go(0);
})();
