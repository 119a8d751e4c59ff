// What pages do beyond htmx, a module for each thing. Reading, enabling and sending again work without any of it.
import "./form.js";
import "./charts.js";
import "./copy.js";
import "./figures.js";
import "./live.js";
import "./times.js";
