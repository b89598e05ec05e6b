// Update an open page: the queue, which is polled while the page is visible, and the player of a task's page.
"use strict";

const POLL_BUSY = 1000, POLL_IDLE = 5000;
const THUMBNAILS = 12;

// -- the queue

let etag = null;
let timer = null;
let running = false;  // whether a job's bar moves

async function poll() {
  clearTimeout(timer);
  if (document.hidden) return;  // visibilitychange polls again
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const response = await fetch(document.body.dataset.state, { headers, cache: "no-store" });
    if (response.status === 200) {
      etag = response.headers.get("ETag");
      const state = await response.json();
      running = state.queue.started > 0;
      show(state);
    }
  } catch { /* the server restarts; the next poll asks again */ }
  timer = setTimeout(poll, running ? POLL_BUSY : POLL_IDLE);
}

function show(state) {
  for (const element of document.querySelectorAll("[data-queue]")) {
    const workers = state.workers === 0 ? "no worker runs, so nothing is done: see the server's log"
      : state.workers === 1 ? "1 worker" : `${state.workers} workers`;
    element.textContent = `${state.queue.started} running, ${state.queue.queued} waiting; ${workers}`;
  }
  for (const project of state.projects) {
    for (const element of document.querySelectorAll(`[data-project="${CSS.escape(project.id)}"] [data-project-state]`)) {
      element.textContent = project.state;
    }
  }
  const jobs = new Map(state.jobs.map((job) => [job.id, job]));
  const shown = new Set();
  let vanished = false;
  for (const element of document.querySelectorAll("[data-job]")) {
    const job = jobs.get(element.dataset.job);
    if (!job) {
      vanished = true;
      element.remove();
    } else {
      shown.add(job.id);
      fill(element, job);
    }
  }
  const list = document.querySelector("[data-job-list]");
  const isNew = list && state.jobs.some((job) => !shown.has(job.id));
  // The server draws new cards and the results of ended jobs. A page is not redrawn while a question is open on it.
  if ((vanished || isNew) && !document.querySelector("details.action[open]") && !playing()) refresh();
}

function fill(element, job) {
  element.querySelector("progress").value = job.progress;
  const status = element.querySelector("[data-status]");
  if (status) status.textContent = job.stopping ? "stopping" : job.status;
  const left = element.querySelector("[data-left]");
  const remaining = job.time_left ? `, ${job.time_left} left` : "";
  if (left) left.textContent = job.status === "started" ? `${Math.floor(job.progress * 100)} %${remaining}` : "";
}

function playing() {
  return document.querySelector("[data-track]") !== null;
}

async function refresh() {
  const response = await fetch(location.href, { cache: "no-store", headers: { Accept: "text/html" } });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const focused = document.activeElement && document.activeElement.id;
  document.querySelector("main").replaceWith(page.querySelector("main"));
  if (focused) document.getElementById(focused)?.focus();
}

// -- a task's page

function player(section) {
  const video = section.querySelector("video");
  const lanes = section.querySelector("[data-lanes]");
  const playhead = section.querySelector("[data-playhead]");
  const seek = section.querySelector("[data-seek]");
  const time = section.querySelector("[data-time]");
  const duration = Number(section.dataset.duration), rate = Number(section.dataset.rate);
  const jumps = [...section.querySelectorAll("[data-jump]")];
  let position = 0;

  function move(seconds, seekVideo) {
    position = Math.min(Math.max(seconds, 0), duration);
    playhead.style.left = `${(100 * position) / duration}%`;
    seek.value = position;
    time.textContent = `${position.toFixed(2)} s, frame ${Math.min(Math.floor(position * rate) + 1, Math.ceil(duration * rate))}`;
    if (seekVideo) video.currentTime = position;
  }

  function jump(direction) {
    const half = 0.5 / rate;
    const times = jumps.map((button) => Number(button.dataset.jump));
    const index = direction > 0 ? times.findIndex((one) => one > position + half)
      : times.findLastIndex((one) => one < position - half);
    if (index >= 0) {
      move(times[index], true);
      jumps[index].scrollIntoView({ block: "nearest" });
    }
  }

  lanes.addEventListener("click", (event) => {
    const box = lanes.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width) * duration, true);
  });
  seek.addEventListener("input", () => move(Number(seek.value), true));
  video.addEventListener("timeupdate", () => move(video.currentTime, false));
  video.addEventListener("error", () => { section.querySelector(".unplayable").hidden = false; });
  for (const button of jumps) button.addEventListener("click", () => move(Number(button.dataset.jump), true));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "n") jump(1);
    if (event.key === "p") jump(-1);
  });
  move(0, false);
  thumbnails(section, video, duration);
}

// The browser draws the thumbnails, from a second copy of the video, so that the server decodes nothing for them.
function thumbnails(section, video, duration) {
  const strip = section.querySelector("[data-thumbnails]");
  const source = document.createElement("video");
  source.muted = true;
  source.preload = "auto";
  source.src = video.currentSrc || video.src;
  let index = 0;
  const next = () => { source.currentTime = ((index + 0.5) / THUMBNAILS) * duration; };
  source.addEventListener("loadeddata", next, { once: true });
  source.addEventListener("seeked", () => {
    const canvas = document.createElement("canvas");
    canvas.height = 112;
    canvas.width = Math.max(1, Math.round((112 * source.videoWidth) / source.videoHeight));
    canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
    strip.append(canvas);
    index += 1;
    if (index < THUMBNAILS) next(); else source.removeAttribute("src");
  });
}

for (const section of document.querySelectorAll("[data-track]")) player(section);
document.addEventListener("visibilitychange", poll);
poll();
